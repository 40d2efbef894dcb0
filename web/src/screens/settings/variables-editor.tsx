import { EyeOff, KeyRound, Pencil, Plus, Trash2 } from 'lucide-react';
import { useState, type SyntheticEvent } from 'react';
import { ApiError } from '@/api/errors';
import {
  useDeleteVariable,
  usePutVariable,
  useVariables,
  type InheritedVariable,
  type Variable,
} from '@/api/variables';
import { Badge } from '@/ui/badge';
import { Button, IconButton } from '@/ui/button';
import { ConfirmDialog, Dialog } from '@/ui/dialog';
import { EmptyState } from '@/ui/empty';
import { ErrorNote, ErrorState } from '@/ui/error-state';
import { Field } from '@/ui/field';
import { Input, Textarea } from '@/ui/input';
import { List, ListRow } from '@/ui/list';
import { SkeletonRows } from '@/ui/skeleton';
import { Ago } from '@/ui/time';
import { toast } from '@/ui/toast';
import { Switch } from '@/ui/toggles';

const FORM_ID = 'variable';
const NAME = /^[A-Za-z_][A-Za-z0-9_]{0,127}$/u;

/** Why a name cannot be a variable's; undefined where it can. The server knows of more. Pure. */
export function variableNameProblem(name: string): string | undefined {
  if (name === '') return 'A variable needs a name.';
  return NAME.test(name) ? undefined : 'Only letters, digits and _, and no digit first.';
}

/** The variables of one environment, or of all where none is given: listed, set, deleted. */
export function VariablesEditor({ environmentId }: { environmentId?: string }) {
  const variables = useVariables(environmentId);
  const [editing, setEditing] = useState<Variable | 'new'>();
  const [deleting, setDeleting] = useState<Variable>();
  const list = variables.data?.variables ?? [];
  const inherited = variables.data?.inherited ?? [];
  const add = (
    <Button icon={Plus} onClick={() => setEditing('new')}>
      Add a variable
    </Button>
  );
  return (
    <div className="flex flex-col gap-4">
      {variables.isPending && <SkeletonRows rows={3} label="Loading the variables" />}
      {variables.isError && variables.data === undefined && (
        <ErrorState
          title="The variables could not be read"
          error={variables.error}
          busy={variables.isFetching}
          onRetry={() => void variables.refetch()}
        />
      )}
      {variables.data !== undefined && list.length === 0 && (
        <EmptyState
          icon={KeyRound}
          title="No variables yet"
          action={add}
          className="rounded-lg border border-line py-10"
        >
          {environmentId === undefined
            ? 'What you set here is there in the shells of all your environments: keys of services, settings of tools.'
            : 'What you set here is there in every shell of this environment.'}
        </EmptyState>
      )}
      {list.length > 0 && (
        <>
          <div className="flex justify-end">{add}</div>
          <List aria-label="Variables">
            {list.map((one) => (
              <VariableRow
                key={one.name}
                variable={one}
                onEdit={() => setEditing(one)}
                onDelete={() => setDeleting(one)}
              />
            ))}
          </List>
        </>
      )}
      {inherited.length > 0 && <Inherited variables={inherited} />}
      {editing !== undefined && (
        <VariableDialog
          variable={editing === 'new' ? undefined : editing}
          environmentId={environmentId}
          onClose={() => setEditing(undefined)}
        />
      )}
      {deleting && (
        <DeleteVariable
          variable={deleting}
          environmentId={environmentId}
          onClose={() => setDeleting(undefined)}
        />
      )}
    </div>
  );
}

function VariableRow({
  variable,
  onEdit,
  onDelete,
}: {
  variable: Variable;
  onEdit: () => void;
  onDelete: () => void;
}) {
  return (
    <ListRow>
      <div className="flex min-w-0 flex-1 flex-col gap-0.5 sm:flex-row sm:items-center sm:gap-4">
        <span className="truncate font-mono text-sm font-medium sm:w-56 sm:shrink-0">{variable.name}</span>
        {variable.isSecret ? (
          <span className="flex items-center gap-1.5 text-sm text-fg-3">
            <EyeOff aria-hidden className="size-3.5" /> Secret, never shown
          </span>
        ) : (
          <span className="truncate font-mono text-sm text-fg-2">{variable.value}</span>
        )}
      </div>
      <Ago at={variable.updatedAt} className="shrink-0 text-sm text-fg-3 max-sm:hidden" />
      <span className="-mr-1.5 flex shrink-0">
        <IconButton icon={Pencil} label={`Change ${variable.name}`} onClick={onEdit} />
        <IconButton
          icon={Trash2}
          variant="danger-ghost"
          label={`Delete ${variable.name}`}
          onClick={onDelete}
        />
      </span>
    </ListRow>
  );
}

function Inherited({ variables }: { variables: readonly InheritedVariable[] }) {
  return (
    <section aria-label="From your account">
      <h3 className="mb-2 text-sm font-semibold text-fg-2">From your account</h3>
      <List aria-label="Variables of all your environments">
        {variables.map((one) => (
          <ListRow key={one.name} className="min-h-10">
            <span className="min-w-0 flex-1 truncate font-mono text-sm">{one.name}</span>
            {one.isSecret && <EyeOff aria-label="secret" className="size-3.5 shrink-0 text-fg-3" />}
            {one.overridden && <Badge>Replaced here</Badge>}
          </ListRow>
        ))}
      </List>
    </section>
  );
}

function problemsFrom(error: Error | null): { name?: string; value?: string } {
  if (!(error instanceof ApiError)) return {};
  if (error.code === 'BAD_VARIABLE_NAME') return { name: error.message };
  if (error.code === 'BAD_VARIABLE_VALUE' || error.code === 'VARIABLE_VALUE_NEEDED')
    return { value: error.message };
  return {};
}

function VariableDialog({
  variable,
  environmentId,
  onClose,
}: {
  variable: Variable | undefined;
  environmentId: string | undefined;
  onClose: () => void;
}) {
  const [name, setName] = useState(variable?.name ?? '');
  const [value, setValue] = useState(variable?.value ?? '');
  const [secret, setSecret] = useState(variable?.isSecret ?? true);
  const [tried, setTried] = useState(false);
  const put = usePutVariable(environmentId);
  const refused = problemsFrom(put.error);
  const nameProblem = tried ? (variableNameProblem(name) ?? refused.name) : undefined;
  // A secret that is left empty keeps what it has.
  const keeps = variable?.isSecret === true && value === '';
  const submit = (event: SyntheticEvent) => {
    event.preventDefault();
    setTried(true);
    if (variableNameProblem(name) !== undefined) return;
    put.mutate(
      { name, isSecret: secret, ...(keeps ? {} : { value }) },
      {
        onSuccess: () => {
          toast.ok(`${name} is set`, { description: 'Shells and jobs that start from now on have it.' });
          onClose();
        },
      },
    );
  };
  return (
    <Dialog
      open
      sticky={value !== (variable?.value ?? '')}
      onOpenChange={(open) => {
        if (!open) onClose();
      }}
      title={variable ? `Change ${variable.name}` : 'Add a variable'}
      footer={
        <>
          <Button onClick={onClose}>Cancel</Button>
          <Button type="submit" form={FORM_ID} variant="primary" busy={put.isPending}>
            Save
          </Button>
        </>
      }
    >
      <form id={FORM_ID} onSubmit={submit} noValidate className="flex flex-col gap-4">
        {put.isError && Object.keys(refused).length === 0 && <ErrorNote error={put.error} />}
        {!variable && (
          <Field label="Name" error={nameProblem}>
            {(control) => (
              <Input
                {...control}
                autoFocus
                placeholder="API_KEY"
                autoComplete="off"
                autoCapitalize="off"
                spellCheck={false}
                className="font-mono"
                value={name}
                onChange={(event) => setName(event.target.value.trim())}
              />
            )}
          </Field>
        )}
        <Field
          label="Value"
          error={tried ? refused.value : undefined}
          hint={
            variable?.isSecret === true
              ? 'It is not shown. Leave this empty to keep it, or write a new one.'
              : undefined
          }
        >
          {(control) => (
            <Textarea
              {...control}
              autoFocus={variable !== undefined}
              rows={3}
              autoComplete="off"
              autoCapitalize="off"
              spellCheck={false}
              className="font-mono text-sm"
              value={value}
              onChange={(event) => setValue(event.target.value)}
            />
          )}
        </Field>
        <Switch
          label="Secret"
          hint="Never shown again, and hidden where git, hooks and jobs print it."
          checked={secret}
          onCheckedChange={setSecret}
        />
      </form>
    </Dialog>
  );
}

function DeleteVariable({
  variable,
  environmentId,
  onClose,
}: {
  variable: Variable;
  environmentId: string | undefined;
  onClose: () => void;
}) {
  const remove = useDeleteVariable(environmentId);
  return (
    <ConfirmDialog
      open
      onOpenChange={(open) => {
        if (!open) onClose();
      }}
      title={`Delete ${variable.name}?`}
      action="Delete"
      busy={remove.isPending}
      onConfirm={() =>
        remove.mutate(variable.name, {
          onSuccess: () => {
            toast.ok(`${variable.name} is deleted`);
            onClose();
          },
        })
      }
    >
      <p>
        Shells that start from now on do not have it; those that run keep it until they end.
        {variable.isSecret && ' Its value cannot be brought back.'}
      </p>
      {remove.isError && <ErrorNote error={remove.error} />}
    </ConfirmDialog>
  );
}
