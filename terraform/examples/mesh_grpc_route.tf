resource "mesh_grpc_route" "example" {
  namespace = "default"
  name      = "ledger"
  spec = {
    parent_refs = [{ name = "ledger", port = 50051 }]
    rules = [{
      matches      = [{ method = { service = "ledger.v1.Ledger", method = "Post" } }]
      backend_refs = [{ name = "ledger", subset = "v2", port = 50051 }]
    }]
  }
}
