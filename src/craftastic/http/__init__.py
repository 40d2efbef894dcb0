"""The HTTP edge: what every route has in common.

Importing it teaches routes to give an escaped slash in a path segment back as a slash; it has to
happen before any route is declared, and every module with routes imports something from here.
"""

from craftastic.http import paths

paths.register()
