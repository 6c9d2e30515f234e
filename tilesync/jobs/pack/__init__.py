"""Pack a version into one file, and prove each file of it while it is written.

job            the run: manifest, checks before the first byte, files, end
manifest_copy  the manifest of the version, read once
proven_files   read stored files, and compare them with the manifest
precheck       what the manifest tells before: whether it is sound, and the limits of the format
"""
