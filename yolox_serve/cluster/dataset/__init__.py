"""Detection in whole data sets by Ray Data: from files anywhere to Parquet and COCO."""
