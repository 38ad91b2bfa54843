"""Pictures of barcodes with exact boxes, drawn without end: data for the detector that ships."""
