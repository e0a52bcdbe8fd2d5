data "mesh_cluster" "example" {}

check "every_server_answers" {
  assert {
    condition     = alltrue([for member in data.mesh_cluster.example.members : member.reachable])
    error_message = "A server of the control plane does not answer."
  }
}
