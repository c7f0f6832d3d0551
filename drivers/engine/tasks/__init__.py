"""What models do in one forward pass, a file for each family of tasks."""
