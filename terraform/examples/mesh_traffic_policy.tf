resource "mesh_traffic_policy" "example" {
  namespace = "default"
  name      = "orders"
  spec = {
    target_refs       = [{ name = "orders" }]
    load_balancer     = { type = "LeastRequest" }
    health_check      = { http = { path = "/healthz" }, interval = "5s" }
    outlier_detection = { consecutive_errors = 5 }
    timeouts          = { connect = "1s", request = "15s" }
  }
}
