resource "mesh_namespace" "example" {
  name = "shop"
  spec = { description = "Everything that sells." }
}
