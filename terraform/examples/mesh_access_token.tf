resource "mesh_access_token" "example" {
  name = "ci"
  spec = {
    roles = ["viewer"]
    ttl   = "720h"
  }
}

output "ci_token" {
  value     = mesh_access_token.example.token
  sensitive = true
}
