resource "mesh_service" "example" {
  namespace = "default"
  name      = "orders"
  labels    = { team = "shop" }
  spec = {
    ports = [{ name = "http", port = 80, target_port = 8080, protocol = "http" }]
    subsets = [
      { name = "v1", labels = { version = "v1" } },
      { name = "v2", labels = { version = "v2" } },
    ]
  }
}
