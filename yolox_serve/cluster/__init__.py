"""Beyond one machine, by Ray: the server as replicas, and detection in whole data sets."""
