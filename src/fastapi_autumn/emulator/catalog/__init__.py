"""What is sold: features and plans as they are read, kept, versioned, described and previewed."""
