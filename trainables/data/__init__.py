"""From files to decoded images, a cache and four disjoint splits."""
