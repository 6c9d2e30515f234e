"""Readers of packages: a package file as a destination that is only read, with one version.

destination       open a package: its files, its manifest, and its audit
publication       the manifest, and what follows from it
foreign_manifest  the manifest of a package that tilesync did not write
stored_files      the files of the version, for jobs
public_files      the files of the version, for a server
structure         faults of the structure of a Zip file: entries that overlap, the index of a .3tz file
opening           the reader of each format, here and in other processes
package           what all readers have in common: entries, and the index that is built for a package without one
name_index        search in sorted records on disk, and sort them
zip_package       .3tz and .zip
zip_directory     the central directory of a Zip file, and the headers of its entries
entry_bytes       unpack an entry, and check its size and CRC-32
tar_package       .tar
sqlite_package    .3dtiles
package_input     reads at an offset, and the stamp of the file
"""
