resource "mesh_tcp_route" "example" {
  namespace = "default"
  name      = "payments"
  spec = {
    parent_refs = [{ name = "payments", port = 5432 }]
    rules = [{
      backend_refs = [
        { name = "payments", subset = "v1", port = 5432, weight = 90 },
        { name = "payments", subset = "v2", port = 5432, weight = 10 },
      ]
    }]
  }
}
