"""The differences between two versions, from their manifests alone: no tile is read, and memory stays flat.

changes    one difference, and the totals of all
collector  collect differences as JSON lines in a temporary file, and count them
job        compare two versions, and the JSON lines of the result
moves      pair removed and added files of the same content
names      compare the files of both sides by name
records    name, size and digests of each file, cut out of the lines of a manifest
reuse      sum up the contents that the other side does not have
roles      the role of a file in a tileset, by the ending of its name
sides      the two sides of a comparison: a stored version, or the listing of a source
spool      records in a temporary file, in partitions or sorted
unchanged  find the files that are the same on both sides while both are read
"""
