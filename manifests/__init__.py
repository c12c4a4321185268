"""The contracts: everything that exists on disk or in a bucket. No torch, no Prefect, no blora.

Import what you need from its module (`manifests.ids`, `manifests.layout`, `manifests.store.store`, ...); neither this
package nor a room of it exports anything of its own, so that reading an id never imports pyarrow or s3fs.
"""
