"""Work on several devices and machines: folders and films, over processes of this machine or a Ray cluster.

`pool` hands items out to workers and gets results back, whatever the workers run on; `processes` and `rays` are what
they can run on.  `pictures` and `films` say what an item is and how it is done, `shards` divides a folder for batch
systems, `places` reaches folders at an address such as s3://bucket/scans, `trips` films.
"""
