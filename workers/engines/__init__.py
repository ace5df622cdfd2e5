"""Which library runs the graph? One file each."""

from workers.engines import private as private
