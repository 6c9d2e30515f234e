"""What Azure Blob Storage says, without I/O."""
