resource "mesh_http_route" "example" {
  namespace = "default"
  name      = "orders"
  spec = {
    parent_refs = [{ name = "orders", port = 80 }]
    rules = [
      {
        name    = "preview"
        matches = [{ headers = [{ name = "x-employee", value = "true" }] }]
        backend_refs = [
          { name = "orders", subset = "v2", port = 80 },
        ]
      },
      {
        backend_refs = [
          { name = "orders", subset = "v1", port = 80, weight = 90 },
          { name = "orders", subset = "v2", port = 80, weight = 10 },
        ]
        timeouts = { request = "10s", backend_request = "2s" }
        retry    = { attempts = 2, codes = [502, 503, 504] }
      },
    ]
  }
  # apply ends when all proxies that call orders run it.
  wait_for_applied = { timeout = "1m" }
}
