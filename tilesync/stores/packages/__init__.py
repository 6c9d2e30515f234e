"""Packages: one version of a destination in one file, to be carried to where no network is.

compression     compressors of the entries of a Zip file
formats         the formats, by the ending of a file name, and the names of the entries that tilesync adds
package_output  the file that is written: temporary, locked, renamed at the end
sqlite_writer   writer of .3dtiles files
tar_writer      writer of .tar files
tz3_index       the index of a .3tz file, as it is written
writing         open the writer of a package, by its format
zip_records     the records of a Zip file, for the writer and the reader
zip_writer      writer of .zip and .3tz files
"""
