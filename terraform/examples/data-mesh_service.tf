data "mesh_service" "example" {
  namespace = "default"
  name      = "orders"

  # Where the same configuration makes it, it is read afterwards.
  depends_on = [mesh_service.example]
}

output "orders_address" {
  value = data.mesh_service.example.virtual_ips[0]
}
