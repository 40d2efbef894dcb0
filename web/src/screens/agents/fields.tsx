import { FileKey2, LockKeyhole, TriangleAlert, Upload } from 'lucide-react';
import { useRef, useState, type DragEvent } from 'react';
import type { AgentType, CredentialKind } from '@/api/agents';
import { formatBytes } from '@/app/bytes';
import { Button } from '@/ui/button';
import { cn } from '@/ui/cn';
import { Field, type FieldControl } from '@/ui/field';
import { Input, PasswordInput, Textarea } from '@/ui/input';
import { Notice } from '@/ui/notice';
import { enters, isInstallable, MAX_FILE } from './words';

/** Says before anything is given what of it enters the sandbox. */
export function DeliveryNote({ kind, className }: { kind: CredentialKind; className?: string }) {
  const inside = enters(kind);
  const Icon = inside ? TriangleAlert : LockKeyhole;
  return (
    <p
      className={cn(
        'flex items-start gap-2 rounded-md px-3 py-2 text-sm',
        inside ? 'bg-warn-soft text-fg' : 'bg-sunken text-fg-2',
        className,
      )}
    >
      <Icon aria-hidden className={cn('mt-0.5 size-4 shrink-0', inside ? 'text-warn' : 'text-fg-3')} />
      <span className="min-w-0">{kind.readableBy}</span>
    </p>
  );
}

/** How to get a program that the server cannot install. */
export function MissingNote({ type, className }: { type: AgentType; className?: string }) {
  if (isInstallable(type)) return null;
  return (
    <Notice className={className}>
      <p>{type.title} cannot be installed by this server: it has to be brought into the sandbox.</p>
      <p className="mt-1 text-fg-2">{type.missing ?? 'A session with it says how to get it.'}</p>
    </Notice>
  );
}

/** A credential's value: a key is typed or pasted, a login file chosen or dropped. Never shown again. */
export function CredentialField({
  kind,
  value,
  onChange,
  error,
}: {
  kind: CredentialKind;
  value: string;
  onChange: (value: string) => void;
  error: string | undefined;
}) {
  return (
    <Field label={kind.title} error={error} hint="Kept encrypted on the server, and not shown again.">
      {(control) =>
        kind.delivery === 'file' ? (
          <FileDrop control={control} value={value} onChange={onChange} />
        ) : (
          <PasswordInput
            {...control}
            autoComplete="new-password"
            spellCheck={false}
            className="font-mono"
            value={value}
            onChange={(event) => onChange(event.target.value)}
          />
        )
      }
    </Field>
  );
}

function FileDrop({
  control,
  value,
  onChange,
}: {
  control: FieldControl;
  value: string;
  onChange: (value: string) => void;
}) {
  const [file, setFile] = useState<{ name: string; size: number }>();
  const [refused, setRefused] = useState<string>();
  const [over, setOver] = useState(false);
  const [pasting, setPasting] = useState(false);
  const input = useRef<HTMLInputElement>(null);
  const take = async (chosen: File | undefined) => {
    if (!chosen) return;
    setRefused(undefined);
    if (chosen.size > MAX_FILE) {
      setRefused(`${chosen.name} has ${formatBytes(chosen.size)}; a login file is much smaller.`);
      return;
    }
    onChange(await chosen.text());
    setFile({ name: chosen.name, size: chosen.size });
  };
  const drop = (event: DragEvent) => {
    event.preventDefault();
    setOver(false);
    void take(event.dataTransfer.files[0]);
  };
  const chosen = value !== '' && file !== undefined;
  return (
    <div className="flex flex-col gap-2">
      {/* Dropping is a short way to what the button does. */}
      {/* eslint-disable-next-line jsx-a11y/no-static-element-interactions */}
      <div
        onDragOver={(event) => {
          event.preventDefault();
          setOver(true);
        }}
        onDragLeave={() => setOver(false)}
        onDrop={drop}
        className={cn(
          'flex flex-wrap items-center gap-3 rounded-md border border-dashed border-line-strong bg-surface px-3 py-3',
          over && 'border-accent bg-accent-soft',
        )}
      >
        <FileKey2 aria-hidden className="size-5 shrink-0 text-fg-3" />
        <p role="status" className="min-w-0 flex-1 text-sm wrap-anywhere text-fg-2">
          {chosen ? (
            <>
              <span className="font-medium text-fg">{file.name}</span>, {formatBytes(file.size)}
            </>
          ) : (
            'Drop the file here'
          )}
        </p>
        <Button icon={Upload} onClick={() => input.current?.click()}>
          {chosen ? 'Choose another' : 'Choose a file'}
        </Button>
        <input
          ref={input}
          {...control}
          type="file"
          className="sr-only"
          tabIndex={-1}
          onChange={(event) => {
            void take(event.target.files?.[0]);
            event.target.value = '';
          }}
        />
      </div>
      {refused !== undefined && (
        <p role="alert" className="text-xs text-bad">
          {refused}
        </p>
      )}
      {pasting ? (
        <Textarea
          aria-label="What is in the file"
          rows={4}
          autoComplete="off"
          autoCapitalize="off"
          spellCheck={false}
          className="font-mono text-sm"
          value={value}
          onChange={(event) => {
            setFile(undefined);
            onChange(event.target.value);
          }}
        />
      ) : (
        <Button size="sm" variant="ghost" className="self-start" onClick={() => setPasting(true)}>
          Paste what is in it instead
        </Button>
      )}
    </div>
  );
}

/** Which model; most people leave it as it is. */
export function ModelField({ model, onChange }: { model: string; onChange: (text: string) => void }) {
  return (
    <Field label="Model" hint="Empty: what the agent takes by itself.">
      {(control) => (
        <Input
          {...control}
          autoComplete="off"
          autoCapitalize="off"
          spellCheck={false}
          maxLength={200}
          className="font-mono"
          value={model}
          onChange={(event) => onChange(event.target.value)}
        />
      )}
    </Field>
  );
}

/** Where requests to the model go. A credential is sent there, so the two are given together. */
export function AddressField({
  baseUrl,
  problem,
  onChange,
}: {
  baseUrl: string;
  problem: string | undefined;
  onChange: (text: string) => void;
}) {
  return (
    <Field
      label="Address of the model’s API"
      hint="Empty: the provider’s own. The credential is sent there."
      error={problem}
    >
      {(control) => (
        <Input
          {...control}
          type="url"
          inputMode="url"
          autoComplete="off"
          spellCheck={false}
          maxLength={300}
          placeholder="https://models.example.com/v1"
          value={baseUrl}
          onChange={(event) => onChange(event.target.value)}
        />
      )}
    </Field>
  );
}
