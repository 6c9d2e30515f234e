"""Pack a version into one file, and prove each file of it while it is written.

job            the run: manifest, checks before the first byte, files, end
manifest_copy  the manifest of the version, read once
proven_files   read stored files, and compare them with the manifest
survey         what the manifest tells before: limits of the format, space
"""
