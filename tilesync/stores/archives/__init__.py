"""Packages: one version of a destination in one file, to be carried to where no network is.

formats      the formats, by the ending of a file name, and the names of the entries that tilesync adds
zip_records  the records of a Zip file, for the writer and the reader
"""
