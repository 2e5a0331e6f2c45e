"""The mathematics that networks, losses, metrics and tasks share: pure functions of tensors."""
