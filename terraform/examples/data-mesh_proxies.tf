data "mesh_proxies" "example" {}

output "hosts_that_refuse_their_configuration" {
  value = [for proxy in data.mesh_proxies.example.proxies : proxy.node if proxy.nack != null]
}
