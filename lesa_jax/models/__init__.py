"""The forward pass of decoder-only language models, as pure functions over checkpoint-named trees."""
