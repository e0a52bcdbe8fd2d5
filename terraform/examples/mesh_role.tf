resource "mesh_role" "example" {
  name = "shop-operator"
  spec = {
    rules = [{
      kinds      = ["Service", "HTTPRoute", "TrafficPolicy"]
      verbs      = ["get", "list", "watch", "write", "delete"]
      namespaces = ["default"]
    }]
  }
}
