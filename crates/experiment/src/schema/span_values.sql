-- What a new file has beyond revision a1b2c3d4e5f6: the columns for a span's cost and model that
-- MLflow's revision 75868b020152 adds where they are missing, declared as it declares them.
-- That revision fills them from places that a1b2c3d4e5f6 does not have, and so with NULL; the
-- trigger puts back what was there. It goes with the old table when the same revision makes
-- `spans` anew.
ALTER TABLE spans ADD COLUMN input_cost FLOAT;
ALTER TABLE spans ADD COLUMN output_cost FLOAT;
ALTER TABLE spans ADD COLUMN total_cost FLOAT;
ALTER TABLE spans ADD COLUMN model_name VARCHAR(500);
ALTER TABLE spans ADD COLUMN model_provider VARCHAR(500);
CREATE TRIGGER trace_destination_keep_span_values
AFTER UPDATE OF input_cost, output_cost, total_cost, model_name, model_provider ON spans
WHEN NEW.content = OLD.content
    AND (NEW.input_cost IS NULL AND OLD.input_cost IS NOT NULL
        OR NEW.output_cost IS NULL AND OLD.output_cost IS NOT NULL
        OR NEW.total_cost IS NULL AND OLD.total_cost IS NOT NULL
        OR NEW.model_name IS NULL AND OLD.model_name IS NOT NULL
        OR NEW.model_provider IS NULL AND OLD.model_provider IS NOT NULL)
BEGIN
    UPDATE spans SET
        input_cost = COALESCE(NEW.input_cost, OLD.input_cost),
        output_cost = COALESCE(NEW.output_cost, OLD.output_cost),
        total_cost = COALESCE(NEW.total_cost, OLD.total_cost),
        model_name = COALESCE(NEW.model_name, OLD.model_name),
        model_provider = COALESCE(NEW.model_provider, OLD.model_provider)
    WHERE trace_id = NEW.trace_id AND span_id = NEW.span_id;
END;
