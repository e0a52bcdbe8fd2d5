resource "mesh_peer_authentication" "example" {
  namespace = "default"
  name      = "orders"
  spec = {
    target_refs = [{ name = "orders" }]
    mode        = "Strict"
    port_modes  = [{ port = 9090, mode = "Permissive" }]
  }
}
