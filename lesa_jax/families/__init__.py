"""What families of models call their parts and where they differ: data, and general rules for all others."""
