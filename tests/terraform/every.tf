# Each attribute of each resource, in some of them. What excludes each other stands in several.
locals {
  labels = { team = "shop", "example.com/tier" = "front" }
  notes  = { "example.com/owner" = "the shop's people, who are \"on call\"" }
}

resource "mesh_namespace" "every" {
  name        = "every"
  labels      = local.labels
  annotations = local.notes
  spec        = { description = "of the tests" }
}

resource "mesh_namespace" "empty" {
  name        = "empty"
  labels      = {}
  annotations = {}
  spec        = {}
}

resource "mesh_node" "every" {
  name        = "every"
  labels      = local.labels
  annotations = local.notes
  spec        = { zone = "a", services = ["every/*", "default/web"], disabled = true }
  wait_for_applied = { quorum = 50, timeout = "10s" }
}

resource "mesh_role" "every" {
  name        = "every"
  labels      = local.labels
  annotations = local.notes
  spec = {
    rules = [
      { kinds = ["Service", "HTTPRoute"], verbs = ["get", "list"], namespaces = ["every"] },
      { kinds = ["Node"], verbs = ["*"], namespaces = [] },
    ]
  }
}

resource "mesh_join_token" "every" {
  name        = "every"
  labels      = local.labels
  annotations = local.notes
  spec = {
    role        = "host"
    uses        = 3
    ttl         = "90m"
    rejoin      = false
    nodes       = ["every-*"]
    services    = ["every/orders"]
    node_labels = { zone = "a" }
  }
}

resource "mesh_access_token" "every" {
  name        = "every"
  labels      = local.labels
  annotations = local.notes
  spec        = { roles = ["viewer", mesh_role.every.name], ttl = "720h" }
}

resource "mesh_service" "every" {
  namespace   = mesh_namespace.every.name
  name        = "every"
  labels      = local.labels
  annotations = local.notes
  spec = {
    ports = [
      { name = "http", port = 80, target_port = 8080, protocol = "http" },
      { name = "stream", port = 5432, protocol = "tcp" },
    ]
    subsets = [{ name = "v1", labels = { version = "v1" } }, { name = "v2", labels = { version = "v2" } }]
  }
  wait_for_applied = { quorum = 50, timeout = "10s" }
}

resource "mesh_http_route" "every" {
  namespace   = mesh_namespace.every.name
  name        = "every"
  labels      = local.labels
  annotations = local.notes
  spec = {
    parent_refs = [{ kind = "Service", name = "every", port = 80 }]
    rules = [
      {
        name = "matched"
        matches = [{
          path          = { type = "PathPrefix", value = "/api" }
          method        = "GET"
          headers       = [{ type = "Exact", name = "x-employee", value = "true" }]
          query_params  = [{ type = "RegularExpression", name = "page", value = "[0-9]+" }]
          cookies       = [{ type = "Exact", name = "beta", value = "1" }]
          sources       = ["shop/web", "shop/*"]
          source_labels = { version = "v2" }
        }]
        backend_refs = [
          { kind = "Service", namespace = "every", name = "every", subset = "v1", port = 80, weight = 9900 },
          {
            name   = "every"
            subset = "v2"
            port   = 80
            weight = 100
            filters = [
              {
                type = "RequestHeaderModifier"
                request_header_modifier = {
                  set    = [{ name = "x-set", value = "2" }]
                  add    = [{ name = "x-add", value = "3" }]
                  remove = ["x-remove"]
                }
              },
              {
                type = "ResponseHeaderModifier"
                response_header_modifier = {
                  set    = [{ name = "x-set", value = "2" }]
                  add    = [{ name = "x-add", value = "3" }]
                  remove = ["x-remove"]
                }
              },
              { type = "URLRewrite", url_rewrite = { hostname = "next.example", path = { type = "ReplacePrefixMatch", replace_prefix_match = "/v3" } } },
              {
                type = "RequestMirror"
                request_mirror = {
                  backend_ref = { kind = "Service", namespace = "every", name = "every", subset = "v2", port = 80 }
                  percent     = 10
                }
              },
              {
                type = "RequestMirror"
                request_mirror = {
                  backend_ref = { name = "every", port = 80 }
                  fraction    = { numerator = 1, denominator = 1000 }
                }
              },
            ]
          },
        ]
        filters = [
          {
            type = "RequestHeaderModifier"
            request_header_modifier = {
              set    = [{ name = "x-set", value = "1" }]
              add    = [{ name = "x-add", value = "2" }]
              remove = ["x-remove"]
            }
          },
          {
            type = "ResponseHeaderModifier"
            response_header_modifier = {
              set    = [{ name = "x-set", value = "1" }]
              add    = [{ name = "x-add", value = "2" }]
              remove = ["x-remove"]
            }
          },
          { type = "URLRewrite", url_rewrite = { hostname = "orders.example", path = { type = "ReplacePrefixMatch", replace_prefix_match = "/v2" } } },
          {
            type = "RequestMirror"
            request_mirror = {
              backend_ref = { kind = "Service", namespace = "every", name = "every", subset = "v2", port = 80 }
              percent     = 10
            }
          },
          {
            type = "CORS"
            cors = {
              allow_origins     = ["https://shop.example"]
              allow_credentials = true
              allow_methods     = ["GET"]
              allow_headers     = ["x-token"]
              expose_headers    = ["x-count"]
              max_age           = 60
            }
          },
          {
            type = "FaultInjection"
            fault_injection = {
              delay = { duration = "2s", percent = 5 }
              abort = { status = 503, grpc_status = 14, percent = 5 }
              until = "2030-01-01T00:00:00Z"
            }
          },
        ]
        timeouts = { request = "10s", backend_request = "2s" }
        retry    = { attempts = 2, codes = [502, 503], conditions = ["ConnectFailure"], grpc_codes = ["Unavailable"], backoff = "25ms" }
      },
      {
        name         = "rewritten"
        matches      = [{ path = { type = "Exact", value = "/old" } }]
        filters      = [{ type = "URLRewrite", url_rewrite = { path = { type = "ReplaceFullPath", replace_full_path = "/new" } } }]
        backend_refs = [{
          name    = "every"
          port    = 80
          filters = [{ type = "URLRewrite", url_rewrite = { path = { type = "ReplaceFullPath", replace_full_path = "/newer" } } }]
        }]
      },
      {
        name    = "redirected"
        matches = [{ path = { type = "PathPrefix", value = "/elsewhere" } }]
        filters = [{
          type = "RequestRedirect"
          request_redirect = {
            scheme      = "https"
            hostname    = "shop.example"
            path        = { type = "ReplacePrefixMatch", replace_prefix_match = "/there" }
            port        = 443
            status_code = 301
          }
        }]
      },
      {
        name    = "redirected-whole"
        matches = [{ path = { type = "PathPrefix", value = "/whole" } }]
        filters = [{ type = "RequestRedirect", request_redirect = { path = { type = "ReplaceFullPath", replace_full_path = "/all" } } }]
      },
      {
        name    = "answered"
        matches = [{ path = { type = "Exact", value = "/robots.txt" } }]
        filters = [{
          type            = "DirectResponse"
          direct_response = { status = 200, headers = [{ name = "x-by", value = "mesh" }], body = "User-agent: *\nDisallow: /\n" }
        }]
      },
      {
        name         = "shares"
        backend_refs = [{ name = "every", port = 80 }]
        filters = [
          {
            type = "RequestMirror"
            request_mirror = {
              backend_ref = { name = "every", port = 80 }
              fraction    = { numerator = 1, denominator = 1000 }
            }
          },
          {
            type = "FaultInjection"
            fault_injection = {
              delay = { duration = "100ms", fraction = { numerator = 1, denominator = 1000 } }
              abort = { status = 500, fraction = { numerator = 1, denominator = 1000 } }
            }
          },
        ]
      },
    ]
  }
  wait_for_applied = { quorum = 50, timeout = "10s" }
}

resource "mesh_grpc_route" "every" {
  namespace   = mesh_namespace.every.name
  name        = "every"
  labels      = local.labels
  annotations = local.notes
  spec = {
    parent_refs = [{ kind = "Service", name = "ledger", port = 50051 }]
    rules = [
      {
        name = "matched"
        matches = [{
          method        = { type = "Exact", service = "ledger.v1.Ledger", method = "Post" }
          headers       = [{ type = "Exact", name = "x-tenant", value = "acme" }]
          sources       = ["shop/web"]
          source_labels = { version = "v2" }
        }]
        backend_refs = [
          {
            kind      = "Service"
            namespace = "every"
            name      = "ledger"
            subset    = "v2"
            port      = 50051
            weight    = 1
            filters = [
              {
                type = "RequestHeaderModifier"
                request_header_modifier = {
                  set    = [{ name = "x-set", value = "2" }]
                  add    = [{ name = "x-add", value = "3" }]
                  remove = ["x-remove"]
                }
              },
              {
                type = "ResponseHeaderModifier"
                response_header_modifier = {
                  set    = [{ name = "x-set", value = "2" }]
                  add    = [{ name = "x-add", value = "3" }]
                  remove = ["x-remove"]
                }
              },
              {
                type = "RequestMirror"
                request_mirror = {
                  backend_ref = { kind = "Service", namespace = "every", name = "ledger", subset = "v2", port = 50051 }
                  percent     = 10
                }
              },
              {
                type = "RequestMirror"
                request_mirror = {
                  backend_ref = { name = "ledger", port = 50051 }
                  fraction    = { numerator = 1, denominator = 1000 }
                }
              },
            ]
          },
        ]
        filters = [
          {
            type = "RequestHeaderModifier"
            request_header_modifier = {
              set    = [{ name = "x-set", value = "1" }]
              add    = [{ name = "x-add", value = "2" }]
              remove = ["x-remove"]
            }
          },
          {
            type = "ResponseHeaderModifier"
            response_header_modifier = {
              set    = [{ name = "x-set", value = "1" }]
              add    = [{ name = "x-add", value = "2" }]
              remove = ["x-remove"]
            }
          },
          {
            type = "RequestMirror"
            request_mirror = {
              backend_ref = { kind = "Service", namespace = "every", name = "ledger", subset = "v2", port = 50051 }
              percent     = 10
            }
          },
          {
            type = "FaultInjection"
            fault_injection = {
              delay = { duration = "2s", percent = 5 }
              abort = { status = 503, grpc_status = 14, percent = 5 }
              until = "2030-01-01T00:00:00Z"
            }
          },
        ]
        timeouts = { request = "10s", backend_request = "2s" }
        retry    = { attempts = 2, codes = [503], conditions = ["Reset"], grpc_codes = ["Unavailable"], backoff = "25ms" }
      },
      {
        name         = "shares"
        backend_refs = [{ name = "ledger", port = 50051 }]
        filters = [
          {
            type = "RequestMirror"
            request_mirror = {
              backend_ref = { name = "ledger", port = 50051 }
              fraction    = { numerator = 1, denominator = 1000 }
            }
          },
          {
            type = "FaultInjection"
            fault_injection = {
              delay = { duration = "100ms", fraction = { numerator = 1, denominator = 1000 } }
              abort = { grpc_status = 14, fraction = { numerator = 1, denominator = 1000 } }
            }
          },
        ]
      },
    ]
  }
  wait_for_applied = { quorum = 50, timeout = "10s" }
}

resource "mesh_tcp_route" "every" {
  namespace   = mesh_namespace.every.name
  name        = "every"
  labels      = local.labels
  annotations = local.notes
  spec = {
    parent_refs = [{ kind = "Service", name = "every", port = 5432 }]
    rules = [{
      name = "all"
      backend_refs = [
        { kind = "Service", namespace = "every", name = "every", subset = "v1", port = 5432, weight = 90 },
        { name = "every", subset = "v2", port = 5432, weight = 10 },
      ]
    }]
  }
  wait_for_applied = { quorum = 50, timeout = "10s" }
}

resource "mesh_authorization_policy" "every" {
  namespace   = mesh_namespace.every.name
  name        = "every"
  labels      = local.labels
  annotations = local.notes
  spec = {
    target_refs = [{ kind = "Service", name = "every" }]
    action      = "Allow"
    dry_run     = true
    rules = [{
      name = "web-reads"
      from = [
        { services = ["default/web", "shop/*"] },
        { namespaces = ["ops"], principals = ["spiffe://mesh.internal/ns/default/svc/admin"] },
      ]
      to   = [{ ports = [80], methods = ["GET", "HEAD"], paths = [{ type = "PathPrefix", value = "/api" }] }]
      when = [{ header = "x-tenant", values = ["acme"] }]
    }]
  }
  wait_for_applied = { quorum = 50, timeout = "10s" }
}

resource "mesh_authorization_policy" "nobody" {
  namespace = mesh_namespace.every.name
  name      = "nobody"
  spec      = { rules = [{ from = [], to = [], when = [] }] }
}

resource "mesh_peer_authentication" "every" {
  namespace   = mesh_namespace.every.name
  name        = "every"
  labels      = local.labels
  annotations = local.notes
  spec = {
    target_refs = [{ kind = "Service", name = "every" }]
    mode        = "Permissive"
    port_modes  = [{ port = 5432, mode = "Disabled" }]
  }
  wait_for_applied = { quorum = 50, timeout = "10s" }
}

resource "mesh_traffic_policy" "every" {
  namespace   = mesh_namespace.every.name
  name        = "every"
  labels      = local.labels
  annotations = local.notes
  spec = {
    target_refs = [{ kind = "Service", name = "every" }]
    load_balancer = {
      type            = "PeakEWMA"
      affinity        = { cookie = "same", ttl = "1h" }
      slow_start      = "30s"
      panic_threshold = 50
      zones           = { spill_over_below = 70 }
    }
    health_check = {
      http                = { path = "/healthz" }
      port                = 80
      interval            = "5s"
      timeout             = "1s"
      unhealthy_threshold = 3
      healthy_threshold   = 2
    }
    outlier_detection = {
      consecutive_errors         = 5
      consecutive_gateway_errors = 3
      success_rate               = 90
      latency                    = "500ms"
      interval                   = "10s"
      min_requests               = 20
      base_ejection_time         = "30s"
      max_ejection_time          = "5m"
      max_ejection_percent       = 50
    }
    timeouts = { connect = "1s", request = "15s", idle = "5m" }
    retry = {
      attempts        = 2
      codes           = [502, 503, 504]
      conditions      = ["ConnectFailure", "Refused"]
      grpc_codes      = ["Unavailable"]
      backoff         = "25ms"
      per_try_timeout = "2s"
      budget          = { percent = 20, min_per_second = 3 }
    }
    rate_limits = [{
      name = "tenants"
      matches = [{
        path         = { type = "PathPrefix", value = "/api" }
        method       = "POST"
        headers      = [{ type = "Exact", name = "x-tenant", value = "acme" }]
        query_params = [{ type = "Exact", name = "page", value = "1" }]
        cookies      = [{ type = "Exact", name = "beta", value = "1" }]
        sources      = ["shop/web"]
      }]
      by       = [{ type = "Header", name = "x-tenant" }, { type = "Source" }]
      requests = 100
      per      = "1m"
      burst    = 200
    }]
    limits = { max_connections = 1024, max_pending_requests = 256, max_requests = 4096, max_retries = 0 }
  }
  wait_for_applied = { quorum = 50, timeout = "10s" }
}

resource "mesh_traffic_policy" "hashed" {
  namespace = mesh_namespace.every.name
  name      = "hashed"
  spec = {
    target_refs   = [{ name = "ledger" }]
    load_balancer = { type = "RingHash", hash_on = [{ type = "Header", name = "x-tenant" }, { type = "Source" }] }
    health_check  = { tcp = {} }
  }
}

resource "mesh_discovery_source" "every" {
  name        = "every"
  labels      = local.labels
  annotations = local.notes
  spec = {
    type              = "File"
    file              = { path = "/etc/mesh/discovery/every.yaml" }
    namespace_mapping = { to = mesh_namespace.every.name }
    filter            = { tags = ["mesh"], services = ["old-*"] }
    rename            = [{ from = "Old_Orders", to = "old-orders" }]
    stale_policy      = { after = "10s", keep = "1m" }
    tls               = { hostname = "{service}.example", ca_file = "/etc/ssl/old.pem" }
  }
}

resource "mesh_discovery_source" "consul" {
  name = "consul"
  spec = {
    type = "Consul"
    consul = {
      address      = "https://127.0.0.1:8501"
      token_file   = "/etc/mesh/discovery/consul.token"
      ca_file      = "/etc/mesh/discovery/consul-ca.pem"
      datacenter   = "dc1"
      namespace    = "shop"
      passing_only = true
    }
    namespace_mapping = { from = "namespace" }
  }
}

resource "mesh_discovery_source" "dns" {
  name = "dns"
  spec = {
    type = "DNS"
    dns = {
      servers = ["127.0.0.1:5353"]
      services = [
        { name = "orders", host = "orders.example", port = 8080 },
        { name = "billing", srv = "_billing._tcp.example" },
      ]
    }
  }
}

resource "mesh_discovery_source" "nomad" {
  name = "nomad"
  spec = {
    type = "Nomad"
    nomad = {
      address    = "https://127.0.0.1:4646"
      token_file = "/etc/mesh/discovery/nomad.token"
      ca_file    = "/etc/mesh/discovery/nomad-ca.pem"
      cert_file  = "/etc/mesh/discovery/nomad.pem"
      key_file   = "/etc/mesh/discovery/nomad-key.pem"
      region     = "global"
      namespace  = "*"
    }
  }
}

resource "mesh_discovery_source" "eureka" {
  name = "eureka"
  spec = {
    type = "Eureka"
    eureka = {
      address       = "https://127.0.0.1:8761/eureka"
      password_file = "/etc/mesh/discovery/eureka.password"
      ca_file       = "/etc/mesh/discovery/eureka-ca.pem"
      every         = "10s"
      secure_port   = true
    }
  }
}

resource "mesh_discovery_source" "kubernetes" {
  name = "kubernetes"
  spec = {
    type = "Kubernetes"
    kubernetes = {
      address        = "https://127.0.0.1:6443"
      token_file     = "/etc/mesh/discovery/cluster.token"
      ca_file        = "/etc/mesh/discovery/cluster-ca.pem"
      cert_file      = "/etc/mesh/discovery/cluster.pem"
      key_file       = "/etc/mesh/discovery/cluster-key.pem"
      namespace      = "shop"
      label_selector = "mesh=yes"
    }
  }
}

resource "mesh_discovery_source" "kubeconfig" {
  name = "kubeconfig"
  spec = {
    type       = "Kubernetes"
    kubernetes = { kubeconfig = "/etc/mesh/discovery/kubeconfig", context = "old" }
  }
}
