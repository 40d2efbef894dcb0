import { useState, type SyntheticEvent } from 'react';
import {
  useCreateAgent,
  type Agent,
  type AgentType,
  type AgentWish,
  type CredentialKind,
} from '@/api/agents';
import { Button } from '@/ui/button';
import { Collapsible } from '@/ui/collapsible';
import { Dialog } from '@/ui/dialog';
import { ErrorNote } from '@/ui/error-state';
import { Field } from '@/ui/field';
import { Input } from '@/ui/input';
import { Select } from '@/ui/select';
import { AddressField, CredentialField, DeliveryNote, MissingNote, ModelField } from './fields';
import { agentNameProblem, baseUrlProblem, credentialProblem, credentialValue, isInstallable } from './words';

const FORM_ID = 'new-agent';
const NO_CREDENTIAL = 'none';

type Form = { type: string; name: string; kind: string; value: string; baseUrl: string; model: string };

function firstForm(types: readonly AgentType[]): Form {
  const type = types.find(isInstallable) ?? types[0];
  return {
    type: type?.name ?? '',
    name: '',
    kind: type?.credentials[0]?.type ?? NO_CREDENTIAL,
    value: '',
    baseUrl: '',
    model: '',
  };
}

/** What is sent. Pure. */
export function wishOf(form: Form, type: AgentType, kind: CredentialKind | undefined): AgentWish {
  const baseUrl = form.baseUrl.trim();
  const model = form.model.trim();
  return {
    name: form.name.trim() === '' ? type.title : form.name.trim(),
    type: type.name,
    ...(kind && form.value !== ''
      ? { credential: { type: kind.type, value: credentialValue(form.value, kind) } }
      : {}),
    ...(baseUrl !== '' && kind?.takesBaseUrl === true ? { baseUrl } : {}),
    ...(model === '' ? {} : { model }),
  };
}

/** Makes an agent: which program, under which name, with which credential. */
export function CreateAgent({
  types,
  onClose,
  onCreated,
}: {
  types: readonly AgentType[];
  onClose: () => void;
  onCreated: (agent: Agent) => void;
}) {
  const [form, setForm] = useState(() => firstForm(types));
  const [tried, setTried] = useState(false);
  const create = useCreateAgent();
  const change = (next: Partial<Form>) => setForm({ ...form, ...next });
  const type = types.find((one) => one.name === form.type);
  const kind = type?.credentials.find((one) => one.type === form.kind);
  const name = form.name.trim() === '' ? (type?.title ?? '') : form.name;
  const problems = {
    name: agentNameProblem(name),
    value: kind && credentialProblem(form.value, kind),
    baseUrl: kind?.takesBaseUrl === true ? baseUrlProblem(form.baseUrl) : undefined,
  };
  const submit = (event: SyntheticEvent) => {
    event.preventDefault();
    setTried(true);
    if (!type || create.isPending || Object.values(problems).some((one) => one !== undefined)) return;
    create.mutate(wishOf(form, type, kind), { onSuccess: onCreated });
  };
  return (
    <Dialog
      open
      sticky={form.name !== '' || form.value !== ''}
      onOpenChange={(open) => {
        if (!open) onClose();
      }}
      title="New agent"
      description="A program that works in your sessions, with the credential that it uses."
      footer={
        <>
          <Button onClick={onClose}>Cancel</Button>
          <Button type="submit" form={FORM_ID} variant="primary" busy={create.isPending}>
            Create agent
          </Button>
        </>
      }
    >
      <form id={FORM_ID} onSubmit={submit} noValidate autoComplete="off" className="flex flex-col gap-4">
        {create.isError && <ErrorNote error={create.error} />}
        <Field label="Program">
          {(control) => (
            <Select
              {...control}
              value={form.type}
              onChange={(chosen) => {
                const next = types.find((one) => one.name === chosen);
                change({ type: chosen, kind: next?.credentials[0]?.type ?? NO_CREDENTIAL, value: '' });
              }}
              options={types.map((one) => ({
                value: one.name,
                label: one.title,
                ...(isInstallable(one) ? {} : { note: 'has to be brought along' }),
              }))}
            />
          )}
        </Field>
        {type && <MissingNote type={type} />}
        <Field
          label="Name"
          hint="How you will find it. You may have several of one program."
          error={tried ? problems.name : undefined}
        >
          {(control) => (
            <Input
              {...control}
              autoComplete="off"
              maxLength={255}
              placeholder={type?.title}
              value={form.name}
              onChange={(event) => change({ name: event.target.value })}
            />
          )}
        </Field>
        {type && type.credentials.length > 0 && (
          <KindField type={type} kind={form.kind} onChange={(next) => change({ kind: next, value: '' })} />
        )}
        {kind && (
          <>
            <DeliveryNote kind={kind} />
            <CredentialField
              key={kind.type}
              kind={kind}
              value={form.value}
              onChange={(value) => change({ value })}
              error={tried ? problems.value : undefined}
            />
          </>
        )}
        <Collapsible title="Model and address">
          <div className="flex flex-col gap-4">
            <ModelField model={form.model} onChange={(model) => change({ model })} />
            {kind?.takesBaseUrl === true && (
              <AddressField
                baseUrl={form.baseUrl}
                problem={problems.baseUrl}
                onChange={(baseUrl) => change({ baseUrl })}
              />
            )}
          </div>
        </Collapsible>
      </form>
    </Dialog>
  );
}

/** Chooses what an agent signs in with. */
export function KindField({
  type,
  kind,
  onChange,
  optional = true,
}: {
  type: AgentType;
  kind: string;
  onChange: (kind: string) => void;
  /** Whether it may have none. */
  optional?: boolean;
}) {
  return (
    <Field label="Signs in with">
      {(control) => (
        <Select
          {...control}
          value={kind}
          onChange={onChange}
          options={[
            ...type.credentials.map((one) => ({
              value: one.type,
              label: one.title,
              note: one.delivery === 'gateway' ? 'stays outside the sandbox' : 'enters the sandbox',
            })),
            ...(optional ? [{ value: NO_CREDENTIAL, label: 'Nothing yet' }] : []),
          ]}
        />
      )}
    </Field>
  );
}
