resource "mesh_discovery_source" "example" {
  name = "old-hosts"
  spec = {
    type              = "File"
    file              = { path = "/etc/mesh/discovery/old-hosts.yaml" }
    namespace_mapping = { to = "default" }
    filter            = { tags = ["mesh"] }
    stale_policy      = { after = "30s", keep = "1h" }
  }
}
