resource "mesh_authorization_policy" "example" {
  namespace = "default"
  name      = "orders-from-web"
  spec = {
    target_refs = [{ name = "orders" }]
    action      = "Allow"
    rules = [{
      name = "web-reads"
      from = [{ services = ["default/web"] }]
      to   = [{ ports = [80], methods = ["GET", "HEAD"] }]
    }]
  }
}
