"""What is on the disk, how it got there and from where: manifests, blobs, the catalog, pulls."""
