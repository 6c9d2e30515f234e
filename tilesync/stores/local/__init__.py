"""Local destinations: versions in a folder of this machine.

cached_open         open a file only if the kernel has its folders in memory
destination         open a folder for a run, a plan, reading or an audit
destination_folder  its state folder and layout; refuse folders that cannot be a destination
directory_handles   open folders and their entries; symlinks below the root are never followed
draft               receive a large file into a part that a later run can resume
file_names          names that a folder can store: characters, length, case
flat_layout         the flat layout: publish one version at the container's own paths
folder_paths        refuse a file where a folder is needed, with a hint
fs                  file operations: write, copy, hard link, sync, atomic replace; the thread batcher
gunzip              unpack gzip payloads into new files
lock_file           the kernel lock of a folder, and the record of its holder
public_files        files of a folder for a server
publication         manifests, the pointer, `latest.json`, the `current` symlink, the trash
put_target          write small files whole, also from worker processes
reader              find and read stored files; resolve blob names to safe paths
scratch_files       the temporary catalog and files of a dry run or an audit
writer              write files, and reuse those of other versions by hard link
"""
