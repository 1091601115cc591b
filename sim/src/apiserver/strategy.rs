//! What happens to an object between the request and the store: defaulting, pruning, isolation of status, generation and
//! validation (`rest.BeforeCreate`, `rest.BeforeUpdate` and the strategies of the resources).

mod reading;

use serde_json::Value;

use super::fields::{self, Before, Writer};
use super::metadata::WrongType;
use super::patch::Origin;
use super::request::{Query, Target};
use super::schema::decode;
use super::views::View;
use super::{defaults, definition, metadata, scale, service_defaults, validation};
use crate::clock::Clock;
use crate::store::{FieldError, Record, State, StatusError, differs_outside_metadata, kinds, raise_generation};

/// What becomes of fields that a schema does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

/// `metav1.CreateOptions`, `UpdateOptions` or `PatchOptions`, from the query.
#[derive(Clone, Copy, Debug)]
pub(super) struct WriteOptions {
    pub(super) field_validation: FieldValidation,
    /// Nothing is stored.
    pub(super) dry_run: bool,
}

impl WriteOptions {
    /// Reads the options; `kind` is the one that they are called after.
    pub(super) fn parse(query: &Query, kind: &str) -> Result<Self, StatusError> {
        let mut problems = Vec::new();
        let dry_run = dry_run(query.get("dryRun").as_slice(), &mut problems);
        let field_validation = match query.get("fieldValidation") {
            Some("Ignore") => FieldValidation::Ignore,
            None | Some("Warn") => FieldValidation::Warn,
            Some("Strict") => FieldValidation::Strict,
            Some(other) => {
                problems.push(FieldError {
                    reason: crate::store::FieldReason::NotSupported,
                    field: "fieldValidation".to_owned(),
                    value: Value::from(other).to_string(),
                    detail: "supported values: \"\", \"Ignore\", \"Strict\", \"Warn\"".to_owned(),
                });
                FieldValidation::Warn
            }
        };
        if problems.is_empty() {
            return Ok(Self { field_validation, dry_run });
        }
        Err(StatusError::invalid("meta.k8s.io", kind, "", &problems))
    }
}

/// Whether the values of `dryRun` ask for one (`ValidateDryRun`).
pub(super) fn dry_run(values: &[&str], problems: &mut Vec<FieldError>) -> bool {
    if values.iter().any(|value| *value != "All") {
        problems.push(FieldError {
            reason: crate::store::FieldReason::NotSupported,
            field: "dryRun".to_owned(),
            value: Value::from(values.to_vec()).to_string(),
            detail: "supported values: \"All\"".to_owned(),
        });
    }
    !values.is_empty()
}

/// To whom what a write sets belongs.
#[derive(Clone, Debug)]
pub(super) enum Ownership {
    /// To a manager of this name that wrote it.
    Update(String),
    /// As was worked out already: the text of managed fields.
    Applied(Option<String>),
}

/// One write's way through the rules.
pub(super) struct Strategy<'a> {
    target: &'a Target,
    clock: Clock,
    options: WriteOptions,
    /// What the object was read from; problems are told in other words for each.
    origin: Origin,
    /// The request's body, where the object was read from one of JSON that names a field twice or may have to be told about
    /// in its own order.
    document: &'a [u8],
    repeats_fields: bool,
    /// Fields that a patch names twice.
    repeated_in_patch: Vec<String>,
    /// To whom belongs what is written; nobody in particular at first.
    pub(super) ownership: Ownership,
    /// Whether a custom resource was read by its schema already, and its unknown fields told.
    is_conformed: bool,
    /// Why a custom resource is not what it is written as; told when all of it is judged.
    wrong_type: Option<WrongType>,
    /// Texts for the client, e.g. about unknown fields.
    pub(super) warnings: Vec<String>,
}

impl<'a> Strategy<'a> {
    pub(super) fn new(target: &'a Target, clock: Clock, options: WriteOptions) -> Self {
        Self {
            target,
            clock,
            options,
            origin: Origin::Body,
            document: &[],
            repeats_fields: false,
            repeated_in_patch: Vec::new(),
            ownership: Ownership::Update(String::new()),
            is_conformed: false,
            wrong_type: None,
            warnings: Vec::new(),
        }
    }

    pub(super) fn prepare_create(&mut self, state: &mut State, value: &mut Value) -> Result<(), StatusError> {
        self.note_type(value)?;
        self.set_type(value);
        if let Some(metadata) = value["metadata"].as_object_mut() {
            metadata.remove("deletionTimestamp");
            metadata.remove("deletionGracePeriodSeconds");
        }
        let given = self.take_managed_fields(value);
        if self.isolates_status()
            && let Some(fields) = value.as_object_mut()
        {
            fields.remove("status");
        }
        self.complete(value, None)?;
        let nothing = fields::empty_object(&self.target.resource, &self.target.api_version());
        let before = Before { object: &nothing, managed: None, is_new: true };
        let text = self.managed_fields(before, value, &given);
        fields::store_text(value, text);
        self.allocate(state, value, None);
        self.validate(state, value, None)?;
        self.warn(value);
        Ok(())
    }

    pub(super) fn prepare_update(
        &mut self,
        state: &mut State,
        present: &Record,
        mut candidate: Value,
    ) -> Result<Value, StatusError> {
        self.note_type(&candidate)?;
        let given = self.take_managed_fields(&mut candidate);
        let is_status = self.target.subresource == "status";
        let before = present.value();
        let mut value = if is_status { self.with_new_status(&before, candidate) } else { candidate };
        self.set_type(&mut value);
        metadata::keep_server_fields(&mut value, &before);
        if self.isolates_status() && !is_status {
            copy_field(&mut value, &before, "status");
        }
        self.complete(&mut value, Some(&before))?;
        let live = Before { object: &before, managed: fields::stored_text(&before), is_new: false };
        // Go cannot tell what an object of another type changes, and forgets whose anything was. What is written to a status has
        // the type of what is there in the end.
        let text = if self.wrong_type.is_some() { None } else { self.managed_fields(live, &value, &given) };
        if is_status {
            self.wrong_type = None;
        }
        fields::store_text(&mut value, text);
        self.allocate(state, &mut value, Some(&before));
        self.validate(state, &value, Some(present))?;
        self.warn(&value);
        if !is_status && self.raises_generation(&value, &before) {
            raise_generation(&mut value, &before);
        }
        if matches!(self.ownership, Ownership::Applied(_)) {
            keep_times_of_no_change(&mut value, &before);
        }
        Ok(value)
    }

    /// Notes what an object that is written says it is, before it is made what it has to be.
    fn note_type(&mut self, value: &Value) -> Result<(), StatusError> {
        if !self.target.resource.custom || self.target.subresource == "scale" {
            return Ok(());
        }
        if value["apiVersion"].as_str().is_none_or(str::is_empty) {
            return Err(StatusError::internal("Object 'apiVersion' is missing in 'object has no apiVersion field'"));
        }
        self.wrong_type = metadata::wrong_type(self.target, value);
        Ok(())
    }

    /// What a client says of managed fields. The metadata of custom resources are read into Go's struct and written again, which
    /// leaves nothing of an empty list.
    fn take_managed_fields(&self, value: &mut Value) -> Value {
        let given = fields::take_text(value);
        let says_nothing = self.target.resource.custom && given.as_array().is_some_and(Vec::is_empty);
        if says_nothing { Value::Null } else { given }
    }

    /// The text of managed fields after this write.
    fn managed_fields(&self, before: Before<'_>, value: &Value, given: &Value) -> Option<String> {
        let manager = match &self.ownership {
            Ownership::Applied(text) => return text.clone(),
            Ownership::Update(manager) => manager,
        };
        let writer = self.writer(manager);
        if let Some(scale) = self.target.served_version().and_then(|version| version.scale.as_ref())
            && self.target.subresource == "scale"
        {
            let changed = scale::differ(scale, before.object, value);
            return fields::track_scale(&writer, &scale.spec_replicas, changed, before.managed);
        }
        fields::track_update(&writer, before, value, given)
    }

    /// Who writes, by the name of its manager.
    pub(super) fn writer<'b>(&'b self, manager: &'b str) -> Writer<'b> {
        Writer {
            resource: &self.target.resource,
            version: &self.target.version,
            subresource: &self.target.subresource,
            manager,
            now: self.clock.now(),
        }
    }

    /// What the server gives an object on its own account, which nobody owns.
    fn allocate(&self, state: &mut State, value: &mut Value, present: Option<&Value>) {
        let resource = &self.target.resource;
        if !resource.custom {
            defaults::allocate(&resource.group, &resource.kind, value, present, state);
        }
    }

    fn set_type(&self, value: &mut Value) {
        let resource = &self.target.resource;
        value["apiVersion"] = Value::String(resource.storage_api_version());
        value["kind"] = Value::String(resource.kind.clone());
    }

    fn isolates_status(&self) -> bool {
        self.target.served_version().is_some_and(|version| version.status)
    }

    /// What a write to `/status` changes: of custom resources the status alone, of built-in ones also metadata, but for labels
    /// in apps.
    fn with_new_status(&self, present: &Value, mut candidate: Value) -> Value {
        let resource = &self.target.resource;
        let metadata = std::mem::take(&mut candidate["metadata"]);
        if let Some(fields) = candidate.as_object_mut() {
            fields.retain(|name, _| name == "status" || present.get(name).is_some());
        }
        for name in present.as_object().into_iter().flat_map(serde_json::Map::keys) {
            if name != "status" && name != "metadata" {
                copy_field(&mut candidate, present, name);
            }
        }
        if resource.custom && metadata == present["metadata"] {
            // Comparing costs less than copying, and a status patch leaves the metadata alone.
            candidate["metadata"] = metadata;
            return candidate;
        }
        if resource.custom {
            candidate["metadata"] = present["metadata"].clone();
            return candidate;
        }
        candidate["metadata"] = metadata;
        if resource.group == "apps" {
            copy_field(&mut candidate["metadata"], &present["metadata"], "labels");
        }
        candidate
    }

    fn complete(&mut self, value: &mut Value, present: Option<&Value>) -> Result<(), StatusError> {
        let resource = &self.target.resource;
        let is_definition = resource.group_kind == kinds::CUSTOM_RESOURCE_DEFINITION;
        if is_definition {
            if let Some(present) = present {
                copy_field(value, present, "status");
            }
            definition::establish(value, &self.clock);
            return Ok(());
        }
        let schema = self.target.served_version().and_then(|version| version.schema.clone());
        if !resource.custom {
            defaults::apply(&resource.group, &resource.kind, value);
            if resource.group_kind == kinds::SERVICE
                && let Some(present) = present
            {
                service_defaults::leave_former_type(&mut value["spec"], &present["spec"]);
            }
            if let Some(schema) = schema {
                decode::fill_structs(&schema, value);
            }
            return Ok(());
        }
        let Some(schema) = schema else {
            return Ok(());
        };
        // What a write to the status keeps may be from before the definition was changed.
        if self.is_conformed && self.target.subresource != "status" {
            return Ok(());
        }
        let unknown = schema.conform(value).unknown_fields;
        if self.is_conformed || self.wrong_type.is_some() {
            return Ok(());
        }
        self.report_unknown_fields(&unknown, value)
    }

    fn warn(&mut self, value: &Value) {
        // Who writes the status is not told of the spec.
        if self.target.resource.group_kind == kinds::SERVICE && self.target.subresource.is_empty() {
            self.warnings.extend(service_defaults::warnings(&value["spec"]));
        }
    }

    fn validate(&self, state: &State, value: &Value, present: Option<&Record>) -> Result<(), StatusError> {
        if let Some(wrong) = &self.wrong_type {
            return Err(self.refuse_type(wrong, value, present));
        }
        let resource = &self.target.resource;
        let mut problems = metadata::problems(self.target, value);
        if let Some(present) = present {
            problems.extend(metadata::update_problems(value, present));
        }
        if resource.group_kind == kinds::CUSTOM_RESOURCE_DEFINITION {
            let unchanged = present.is_some_and(|present| present.value()["spec"] == value["spec"]);
            let found = if unchanged { Vec::new() } else { definition::checks::problems(value) };
            match definition::resource_type(value) {
                Err(rest) if found.is_empty() => problems.extend(rest),
                _ => problems.extend(found),
            }
        } else if !resource.custom {
            if self.target.subresource == "status" {
                problems.extend(validation::status_problems(&resource.kind, value));
            }
            problems.extend(validation::problems(
                &resource.group,
                &resource.kind,
                value,
                present.map(Record::value).as_deref(),
            ));
            if self.target.served_version().is_some_and(|version| version.view == Some(View::Event))
                && let Some(present) = present
            {
                problems.extend(validation::event_update_problems(value, &present.value()));
            }
            if problems.is_empty() && resource.group_kind == kinds::SERVICE {
                let before = present.map(Record::value);
                problems = service_defaults::node_port_problems(value, before.as_deref(), state, self.options.dry_run);
            }
        } else if let Some(schema) = self.target.served_version().and_then(|version| version.schema.as_ref()) {
            let before = present.map(Record::value);
            let found = match &before {
                Some(before) => {
                    let part = (self.target.subresource == "status").then_some("status");
                    schema.validate_update(value, before, part)
                }
                None => schema.validate(value),
            };
            let broken = schema.broken_rules(value, before.as_deref(), &found);
            problems.extend(found.into_iter().chain(broken));
            if let Some(paths) = self.target.served_version().and_then(|version| version.scale.as_ref()) {
                problems.extend(scale::problems(paths, value, self.target.subresource == "status"));
            }
        }
        if problems.is_empty() {
            return Ok(());
        }
        let name = value["metadata"]["name"].as_str().unwrap_or_default();
        Err(metadata::invalid(self.target, name, &problems))
    }

    /// A custom resource of another type is not compared with its schema, but for the schema's rules.
    fn refuse_type(&self, wrong: &WrongType, value: &Value, present: Option<&Record>) -> StatusError {
        let mut problems = wrong.problems.clone();
        if let Some(present) = present {
            problems.extend(metadata::update_problems(value, present));
        }
        if let Some(schema) = self.target.served_version().and_then(|version| version.schema.as_ref()) {
            problems.extend(schema.broken_rules(value, present.map(Record::value).as_deref(), &[]));
        }
        let name = value["metadata"]["name"].as_str().unwrap_or_default();
        StatusError::invalid(&wrong.group, &wrong.kind, name, &problems)
    }

    /// Any change outside metadata and an isolated status; for Deployments also of annotations
    /// (`deploymentStrategy.PrepareForUpdate`).
    fn raises_generation(&self, value: &Value, present: &Value) -> bool {
        let resource = &self.target.resource;
        if !resource.tracks_generation {
            return false;
        }
        let ignores_status = !resource.custom || self.isolates_status();
        let annotations_count = resource.group == "apps" && resource.kind == "Deployment";
        differs_outside_metadata(value, present, ignores_status)
            || (annotations_count && value["metadata"].get("annotations") != present["metadata"].get("annotations"))
    }
}

/// A write that changes nothing but times of managed fields changes nothing (`IgnoreManagedFieldsTimestampsTransformer`).
fn keep_times_of_no_change(value: &mut Value, present: &Value) {
    let (Some(new), Some(old)) = (fields::stored_text(value), fields::stored_text(present)) else {
        return;
    };
    if new == old || !fields::is_same_but_for_times(new, old) {
        return;
    }
    let changed = fields::take_text(value);
    fields::store_text(value, Some(old.to_owned()));
    let version = present["metadata"]["resourceVersion"].clone();
    value["metadata"]["resourceVersion"] = version;
    if value != present {
        fields::store_text(value, changed.as_str().map(str::to_owned));
    }
}

/// Whether two objects differ in anything but their status and who owns it.
fn differs_beside_status(value: &Value, present: &Value) -> bool {
    let differs = |one: &Value, other: &Value, ignored: &str| {
        let counted = |value: &Value| {
            value.as_object().map_or(0, |fields| fields.len() - usize::from(fields.contains_key(ignored)))
        };
        let mut fields =
            one.as_object().into_iter().flatten().filter(|(name, _)| *name != ignored && *name != "metadata");
        counted(one) != counted(other) || fields.any(|(name, value)| other.get(name) != Some(value))
    };
    differs(value, present, "status") || differs(&value["metadata"], &present["metadata"], "managedFields")
}

/// Makes a field equal to that of another object, absence included.
fn copy_field(value: &mut Value, from: &Value, field: &str) {
    let Some(fields) = value.as_object_mut() else {
        return;
    };
    match from.get(field) {
        // Comparing costs less than copying, and most writes change little.
        Some(copied) if fields.get(field) == Some(copied) => {}
        Some(copied) => {
            fields.insert(field.to_owned(), copied.clone());
        }
        None => {
            fields.remove(field);
        }
    }
}
