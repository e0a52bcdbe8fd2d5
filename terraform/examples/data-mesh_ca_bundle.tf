data "mesh_ca_bundle" "example" {}

output "roots" {
  value = data.mesh_ca_bundle.example.pem
}
