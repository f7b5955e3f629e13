"""Pictures of what fine-tuning does to the images of a task."""
