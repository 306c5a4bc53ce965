//! What Delta and object stores say, as the one error the pipeline knows.
