"""Tables and studies: several models or methods, trained, scored and compared."""
