"""Which library runs the graph? One file each."""
