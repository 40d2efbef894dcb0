import { Bot, Plus, Trash2 } from 'lucide-react';
import { useState, type SyntheticEvent } from 'react';
import {
  useAccessTokens,
  useMakeAccessToken,
  useRevokeAccessToken,
  type AccessToken,
  type MadeToken,
  type TokenScope,
} from '@/api/account';
import { ApiError, sentence } from '@/api/errors';
import { exactTime } from '@/app/time';
import { Badge } from '@/ui/badge';
import { Button, IconButton } from '@/ui/button';
import { InlineCode } from '@/ui/code';
import { ConfirmDialog, Dialog } from '@/ui/dialog';
import { EmptyState } from '@/ui/empty';
import { ErrorNote, ErrorState } from '@/ui/error-state';
import { Field, Label } from '@/ui/field';
import { Input } from '@/ui/input';
import { List, ListRow } from '@/ui/list';
import { Select, type Option } from '@/ui/select';
import { SkeletonRows } from '@/ui/skeleton';
import { Ago } from '@/ui/time';
import { toast } from '@/ui/toast';
import { RadioGroup, type RadioOption } from '@/ui/toggles';
import { SettingsPage } from '../settings/frame';
import { ending } from './ending';
import { ShownOnce } from './shown-once';

const FORM_ID = 'access-token';
const DAYS: readonly Option<string>[] = [
  { value: '7', label: '7 days' },
  { value: '30', label: '30 days' },
  { value: '90', label: '90 days' },
  { value: '180', label: '180 days' },
  { value: '366', label: '366 days' },
];
const SCOPES: readonly RadioOption<TokenScope>[] = [
  { value: 'read', label: 'Look only', hint: 'Lists and reads; changes nothing, and opens no terminal.' },
  {
    value: 'write',
    label: 'Look and change',
    hint: 'What you may, except what needs you yourself: passwords, sign-ins, tokens and administration.',
  },
];
const SCOPE_WORDS: Record<TokenScope, string> = { read: 'look only', write: 'look and change' };

export function TokenSettings() {
  const tokens = useAccessTokens();
  const [making, setMaking] = useState(false);
  const [made, setMade] = useState<MadeToken>();
  const [revoking, setRevoking] = useState<AccessToken>();
  const add = (
    <Button icon={Plus} onClick={() => setMaking(true)}>
      New token
    </Button>
  );
  return (
    <SettingsPage
      title="Access tokens"
      lead="A token lets a script or a command line in under your name, without your password. Give each its own, and take it back alone."
    >
      {tokens.isPending && <SkeletonRows rows={2} label="Loading your access tokens" />}
      {tokens.isError && tokens.data === undefined && (
        <ErrorState
          title="Your access tokens could not be read"
          error={tokens.error}
          busy={tokens.isFetching}
          onRetry={() => void tokens.refetch()}
        />
      )}
      {tokens.data?.length === 0 && (
        <EmptyState
          icon={Bot}
          title="No access tokens yet"
          action={add}
          className="rounded-lg border border-line py-10"
        >
          Make one for a script, or for <InlineCode>craftastic login --token-stdin</InlineCode> on another
          machine.
        </EmptyState>
      )}
      {tokens.data !== undefined && tokens.data.length > 0 && (
        <div className="flex flex-col gap-4">
          <div className="flex justify-end">{add}</div>
          <List aria-label="Access tokens">
            {tokens.data.map((one) => (
              <TokenRow key={one.id} token={one} onRevoke={() => setRevoking(one)} />
            ))}
          </List>
        </div>
      )}
      {making && (
        <MakeToken
          onMade={(token) => {
            setMaking(false);
            setMade(token);
          }}
          onClose={() => setMaking(false)}
        />
      )}
      {made && (
        <ShownOnce
          title={`The token ${made.token.name}`}
          secret={made.secret}
          label="The token"
          onClose={() => setMade(undefined)}
        >
          <p>
            Send it as <InlineCode>Authorization: Bearer craft_…</InlineCode>. Whoever has it acts in your
            name until {exactTime(made.token.expiresAt)}, or until you revoke it.
          </p>
        </ShownOnce>
      )}
      {revoking && <RevokeToken token={revoking} onClose={() => setRevoking(undefined)} />}
    </SettingsPage>
  );
}

function TokenRow({ token, onRevoke }: { token: AccessToken; onRevoke: () => void }) {
  const [now] = useState(() => Date.now());
  const end = ending(token.expiresAt, now);
  return (
    <ListRow className="items-start py-3">
      <Bot aria-hidden className="mt-0.5 size-4 shrink-0 text-fg-3" />
      <div className="min-w-0 flex-1">
        <p className="flex flex-wrap items-center gap-x-2 gap-y-1 text-base font-medium">
          <span className="min-w-0 truncate">{token.name}</span>
          <Badge tone={token.scope === 'write' ? 'accent' : 'neutral'}>{SCOPE_WORDS[token.scope]}</Badge>
          {end.state !== 'fine' && (
            <Badge tone={end.state === 'over' ? 'bad' : 'warn'}>
              {end.state === 'over' ? 'expired' : 'expires soon'}
            </Badge>
          )}
        </p>
        <p className="mt-0.5 flex flex-wrap gap-x-3 text-sm text-fg-3">
          <span title={exactTime(token.expiresAt)} className="first-letter:uppercase">
            {end.words}
          </span>
          {token.lastUsedAt === null ? (
            <span>Not used yet</span>
          ) : (
            <span>
              Used <Ago at={token.lastUsedAt} />
            </span>
          )}
          <span>
            Made <Ago at={token.createdAt} />
          </span>
        </p>
      </div>
      <IconButton
        icon={Trash2}
        variant="danger-ghost"
        label={`Revoke ${token.name}`}
        onClick={onRevoke}
        className="-mr-1.5"
      />
    </ListRow>
  );
}

function MakeToken({ onMade, onClose }: { onMade: (made: MadeToken) => void; onClose: () => void }) {
  const [name, setName] = useState('');
  const [scope, setScope] = useState<TokenScope>('read');
  const [days, setDays] = useState('90');
  const [tried, setTried] = useState(false);
  const make = useMakeAccessToken();
  const aboutName =
    make.error instanceof ApiError && /^(?:BAD_)?ACCESS_TOKEN_NAME/u.test(make.error.code)
      ? sentence(make.error.message)
      : undefined;
  const submit = (event: SyntheticEvent) => {
    event.preventDefault();
    setTried(true);
    if (name.trim() === '' || make.isPending) return;
    make.mutate({ name: name.trim(), scope, expiresInDays: Number(days) }, { onSuccess: onMade });
  };
  return (
    <Dialog
      open
      onOpenChange={(open) => {
        if (!open) onClose();
      }}
      title="New access token"
      footer={
        <>
          <Button onClick={onClose}>Cancel</Button>
          <Button type="submit" form={FORM_ID} variant="primary" busy={make.isPending}>
            Make the token
          </Button>
        </>
      }
    >
      <form id={FORM_ID} onSubmit={submit} noValidate autoComplete="off" className="flex flex-col gap-4">
        {make.isError && aboutName === undefined && <ErrorNote error={make.error} />}
        <Field
          label="Name"
          hint="What it is for, so that you know it again."
          error={aboutName ?? (tried && name.trim() === '' ? 'What is it for?' : undefined)}
        >
          {(control) => (
            <Input
              {...control}
              autoFocus
              placeholder="nightly backup"
              autoComplete="off"
              maxLength={100}
              value={name}
              onChange={(event) => {
                setName(event.target.value);
                make.reset();
              }}
            />
          )}
        </Field>
        <div className="flex flex-col gap-2">
          <Label asChild>
            <span>What it may do</span>
          </Label>
          <RadioGroup label="What it may do" value={scope} onChange={setScope} options={SCOPES} />
        </div>
        <Field label="Expires after">
          {(control) => <Select {...control} value={days} onChange={setDays} options={DAYS} />}
        </Field>
      </form>
    </Dialog>
  );
}

function RevokeToken({ token, onClose }: { token: AccessToken; onClose: () => void }) {
  const revoke = useRevokeAccessToken();
  return (
    <ConfirmDialog
      open
      onOpenChange={(open) => {
        if (!open) onClose();
      }}
      title={`Revoke ${token.name}?`}
      action="Revoke"
      busy={revoke.isPending}
      onConfirm={() =>
        revoke.mutate(token.id, {
          onSuccess: () => {
            toast.ok(`${token.name} is revoked`);
            onClose();
          },
        })
      }
    >
      <p>What uses it is refused within seconds. It cannot be given back; make a new one instead.</p>
      {revoke.isError && <ErrorNote error={revoke.error} />}
    </ConfirmDialog>
  );
}
