resource "mesh_node" "example" {
  name   = "shop-1"
  labels = { rack = "r7" }
  spec = {
    zone     = "a"
    services = ["default/orders", "shop/*"]
  }
}
