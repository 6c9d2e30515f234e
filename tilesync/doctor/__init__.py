"""What `tilesync doctor` looks at, from the environment of this machine to what viewers see."""
