"""What destinations in object stores share, whichever store it is."""
