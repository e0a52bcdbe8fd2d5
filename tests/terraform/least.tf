# One of each resource, with nothing that may be left out.
resource "mesh_namespace" "least" {
  name = "least"
}

resource "mesh_node" "least" {
  name = "least"
}

resource "mesh_role" "least" {
  name = "least"
}

resource "mesh_join_token" "least" {
  name = "least"
}

resource "mesh_access_token" "least" {
  name = "least"
  spec = { roles = [mesh_role.least.name] }
}

resource "mesh_service" "least" {
  namespace = mesh_namespace.least.name
  name      = "least"
  spec      = { ports = [{ port = 80 }] }
}

resource "mesh_http_route" "least" {
  namespace = mesh_namespace.least.name
  name      = "least"
  spec      = { parent_refs = [{ name = "least" }], rules = [{}] }
}

resource "mesh_grpc_route" "least" {
  namespace = mesh_namespace.least.name
  name      = "least"
  spec      = { parent_refs = [{ name = "other" }], rules = [{}] }
}

resource "mesh_tcp_route" "least" {
  namespace = mesh_namespace.least.name
  name      = "least"
  spec = {
    parent_refs = [{ name = "stream" }]
    rules       = [{ backend_refs = [{ name = "stream", port = 5432 }] }]
  }
}

resource "mesh_authorization_policy" "least" {
  namespace = mesh_namespace.least.name
  name      = "least"
}

resource "mesh_peer_authentication" "least" {
  namespace = mesh_namespace.least.name
  name      = "least"
  spec      = { mode = "Strict" }
}

resource "mesh_traffic_policy" "least" {
  namespace = mesh_namespace.least.name
  name      = "least"
}

resource "mesh_discovery_source" "least" {
  name = "least"
  spec = {
    type = "File"
    file = { path = "/etc/mesh/discovery/least.yaml" }
  }
}
