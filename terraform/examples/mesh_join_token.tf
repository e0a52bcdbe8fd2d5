resource "mesh_join_token" "example" {
  name = "shop-hosts"
  spec = {
    uses     = 10
    ttl      = "2h"
    nodes    = ["shop-*"]
    services = ["default/orders", "default/web"]
  }
}
