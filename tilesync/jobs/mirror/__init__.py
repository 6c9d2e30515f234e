"""The main job, and its dry run."""
